-- What a cluster's agent is to install there (or to take out), as it is told; and what stood before, to go back to.
ALTER TABLE clusters ADD COLUMN IF NOT EXISTS install jsonb;
ALTER TABLE clusters ADD COLUMN IF NOT EXISTS install_before jsonb;

-- How that goes, as the agent said last.
ALTER TABLE cluster_status ADD COLUMN IF NOT EXISTS install jsonb;
