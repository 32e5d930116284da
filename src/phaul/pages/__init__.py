"""The data plane: the channel that carries the memory, and what moves its bytes."""
