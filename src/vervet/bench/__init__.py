"""What an emotion costs on this machine: `vervet bench` lets contenders take turns on the same real recordings."""
