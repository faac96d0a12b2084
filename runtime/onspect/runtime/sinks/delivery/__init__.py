"""Delivery: queues, the spool and the order in which sinks receive a verdict."""
