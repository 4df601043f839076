"""The corpus is text for the judge, no modules."""

collect_ignore = ["corpus"]
