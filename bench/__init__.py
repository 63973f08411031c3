"""Time and memory of the exporter against ``optimum-cli``, on the same input, in the same run: ``make bench``."""
