"""The report: one page, complete in itself, on a fitted model and some rows."""
