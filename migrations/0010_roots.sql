-- A root rotates by overlap: first all clusters are told of the new one beside the old one, then it signs, and when all
-- clusters sign with intermediates of it and certificates under the old one have ended, the old one goes.

-- the generation that told of it
ALTER TABLE trust_roots ADD COLUMN IF NOT EXISTS since_generation bigint NOT NULL DEFAULT 1;
-- which root signed it; none: the one that signed when this column came
ALTER TABLE cluster_intermediates ADD COLUMN IF NOT EXISTS root_id uuid;
UPDATE cluster_intermediates i SET root_id = r.id
    FROM trust_roots r WHERE r.org_id = i.org_id AND r.signing AND i.root_id IS NULL;
-- what a cluster's agent signs with, as it says, and since when it says so
ALTER TABLE cluster_status ADD COLUMN IF NOT EXISTS signs_with bytea;
ALTER TABLE cluster_status ADD COLUMN IF NOT EXISTS signs_since timestamptz;
