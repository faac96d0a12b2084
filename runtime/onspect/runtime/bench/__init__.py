"""What a model costs on the machine that runs it: stages, throughput, latency, start, memory and processors."""
