"""What frames between two containers meet on one host: facts, judgement, verdict."""
