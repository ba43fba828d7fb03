"""What watches a training run: recorder, memory, throughput, samples, display, SIGTERM, quiet output."""
