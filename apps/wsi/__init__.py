"""Whole-slide diagnosis by attention-challenging multiple instance learning."""
