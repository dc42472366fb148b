"""Kernels in C for dense stacks on the CPU in 32 bits: training steps, and applying a stack."""
