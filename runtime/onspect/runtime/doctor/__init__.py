"""Check of this computer, with a remedy for each problem: `onspect doctor`."""
