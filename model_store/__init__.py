"""Models as files: fetched from the hub at pinned revisions, verified, and kept in the wanted precision."""
