"""The judgement of `overlayd netcheck`: from facts to findings, each with cause and remedy."""
