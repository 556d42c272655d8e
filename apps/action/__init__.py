"""Labelled action segments from untrimmed recordings: BMN with class-semantics attention."""
