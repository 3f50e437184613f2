"""Where stages run. `task` says what is handed over; `here` runs it in this process, `processes` in others."""
