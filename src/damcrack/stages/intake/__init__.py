"""Taking outside data in: sources, snapshots, folder layouts, safe names."""
