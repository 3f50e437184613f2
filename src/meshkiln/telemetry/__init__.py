"""What a server tells of itself: counts and their history, traces, logs. Knows nothing of HTTP; nothing needs it."""
