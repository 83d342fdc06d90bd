"""Commands that find out what is wrong, also on a host whose agent does not run."""
