-- From when a cluster's ServiceExport counts, in seconds since 1970, where it has one: what its cluster says of that within a bound, from when
-- it was first told. None of rows that were told before: what their cluster says counts.
ALTER TABLE inventory_services ADD COLUMN IF NOT EXISTS export_s bigint;
