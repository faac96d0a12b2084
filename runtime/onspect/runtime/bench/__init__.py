"""The cost of a model on this machine: stages, throughput, latency, start, memory and processors."""
