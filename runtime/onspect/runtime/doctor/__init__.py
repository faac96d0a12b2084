"""What works on this computer, and what to do where something does not: `onspect doctor`."""
