"""The six domain apps."""
