"""The way of frames between two containers on one host: facts, judgement, verdict."""
