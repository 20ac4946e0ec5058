-- Which commit led to a generation. A database that was restored from a backup gives numbers that were given out before to
-- other commits: a reader that holds one of those must not take them for what follows.
ALTER TABLE organizations ADD COLUMN IF NOT EXISTS commit_id uuid NOT NULL DEFAULT gen_random_uuid();
ALTER TABLE changes ADD COLUMN IF NOT EXISTS commit_id uuid;
-- when the organization last began a new epoch of generations, because such a reader was found
ALTER TABLE organizations ADD COLUMN IF NOT EXISTS epoch_at timestamptz;

-- Which addresses of other clusters' ingress gateways a cluster's egress gateways reach: by cluster and address, since
-- when a handshake was completed through it, whether it answers, and why it does not.
ALTER TABLE cluster_status ADD COLUMN IF NOT EXISTS reaches jsonb NOT NULL DEFAULT '{}';
