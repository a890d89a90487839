"""Times models side by side. Light to import: the processes that run exported files start here too, without torch."""
