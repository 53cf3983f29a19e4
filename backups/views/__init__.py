"""Pages of Databases, backups, schedules, restores and jobs; each view: access, form, model method, redirect."""
