"""Full disks, signals and read-only disks, for each command that writes."""
