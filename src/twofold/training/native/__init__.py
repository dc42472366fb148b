"""The training step in C, for dense stacks on the CPU in 32 bits."""
