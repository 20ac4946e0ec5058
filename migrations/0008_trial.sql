-- An order that is only tried stands beside the one in force, until the agent answered or its time is up; and how many there were.
ALTER TABLE clusters ADD COLUMN IF NOT EXISTS trial jsonb;
ALTER TABLE clusters ADD COLUMN IF NOT EXISTS trial_ends_at timestamptz;
ALTER TABLE clusters ADD COLUMN IF NOT EXISTS trials bigint NOT NULL DEFAULT 0;

-- What the agent answered last.
ALTER TABLE cluster_status ADD COLUMN IF NOT EXISTS trial jsonb;

-- Trials used to be stored as orders: what stood before them stands again, and must be newer than they were.
UPDATE clusters
SET install = install_before || jsonb_build_object('state', 'installed', 'revision', (install->>'revision')::bigint + 1),
    install_before = NULL
WHERE (install->>'dry_run')::boolean;
