"""The command line: `fastscalar train`, `evaluate`, `predict`, `data`, `bench`, `play`, `info`.

    commands, options, completion    what stands on a line
    runs, recipe, sources   a training run and its files; how it learns; its data
    about, report, pictures, png    what it leaves beside its model
    predict, images         pictures that are read
    bench, play, ranks      `bench`; `play`; any command under mpiexec
    console                 what is printed
"""

from fastscalar.cli.commands import main

__all__ = ["main"]
