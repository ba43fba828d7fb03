"""Reports as JSON, HTML and tables: of a training run, and of benchmarks."""
