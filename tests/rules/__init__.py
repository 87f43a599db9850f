"""Every registered operator, by family: what may go is proved, what may not says why."""
