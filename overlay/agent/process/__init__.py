"""The agent as a process: configuration, hardening, tasks, the kernel thread, the event log."""
