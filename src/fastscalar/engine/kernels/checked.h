/* What a checked build looks at, see checked.pxd. */
#ifndef FS_CHECKED_H
#define FS_CHECKED_H

#ifdef FASTSCALAR_CHECKED

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FS_CHECKED 1
#define FS_MARGIN 128

static void fs_broken(const char *what, const char *file, int line)
{
    fprintf(stderr, "fastscalar, checked build: does not hold: %s (%s:%d)\n", what, file, line);
    fflush(stderr);
    abort();
}

#define FS_REQUIRE(condition) ((condition) ? (void)0 : fs_broken(#condition, __FILE__, __LINE__))
#define FS_REQUIRE_WHOLE(broken)                                                                                       \
    do {                                                                                                               \
        const char *fs_what = (broken);                                                                                \
        if (fs_what)                                                                                                   \
            fs_broken(fs_what, __FILE__, __LINE__);                                                                    \
    } while (0)

static void fs_seal_margin(void *block) { memset(block, 0xA5, FS_MARGIN); }

static int fs_margin_is_whole(const void *block)
{
    const unsigned char *byte = (const unsigned char *)block;
    for (int k = 0; k < FS_MARGIN; k++)
        if (byte[k] != 0xA5)
            return 0;
    return 1;
}

#else

#define FS_CHECKED 0
#define FS_MARGIN 0
#define FS_REQUIRE(condition) ((void)0)
#define FS_REQUIRE_WHOLE(broken) ((void)0)
#define fs_seal_margin(block) ((void)(block))
#define fs_margin_is_whole(block) ((void)(block), 1)

#endif
#endif
