CREATE TABLE IF NOT EXISTS clusters (
    org_id        uuid NOT NULL REFERENCES organizations ON DELETE CASCADE,
    id            uuid NOT NULL,
    name          text NOT NULL,
    labels        jsonb NOT NULL DEFAULT '{}',
    region        text,
    zone          text,
    -- host:port of its ingress gateways, as its agent reported them last
    ingress       text[] NOT NULL DEFAULT '{}',
    version       bigint NOT NULL DEFAULT 1,   -- of what people edit: the ETag
    created_at    timestamptz NOT NULL,
    updated_at    timestamptz NOT NULL,
    joined_at     timestamptz,
    revoked_at    timestamptz,
    -- the last inventory update that was stored
    inventory_epoch     text,
    inventory_sequence  bigint,
    PRIMARY KEY (org_id, id),
    CONSTRAINT clusters_name_key UNIQUE (org_id, name)
);

-- Cluster CAs that peers trust while they are neither revoked nor over.
CREATE TABLE IF NOT EXISTS cluster_intermediates (
    org_id        uuid NOT NULL,
    cluster_id    uuid NOT NULL,
    fingerprint   bytea NOT NULL CHECK (octet_length(fingerprint) = 32),   -- SHA-256 of the public key
    serial        text NOT NULL,
    certificate   text NOT NULL,               -- PEM
    not_before    timestamptz NOT NULL,
    not_after     timestamptz NOT NULL,
    issued_at     timestamptz NOT NULL,
    -- the order of issuing, whatever the clocks of the replicas say
    number        bigint GENERATED ALWAYS AS IDENTITY,
    revoked_at    timestamptz,
    PRIMARY KEY (org_id, cluster_id, fingerprint),
    FOREIGN KEY (org_id, cluster_id) REFERENCES clusters ON DELETE CASCADE
);

-- One-time tokens with which a cluster joins, by hash alone.
CREATE TABLE IF NOT EXISTS onboarding_tokens (
    org_id        uuid NOT NULL,
    id            uuid NOT NULL,
    cluster_id    uuid NOT NULL,
    hash          bytea NOT NULL CONSTRAINT onboarding_tokens_hash_key UNIQUE CHECK (octet_length(hash) = 32),
    created_at    timestamptz NOT NULL,
    created_by    text NOT NULL,
    expires_at    timestamptz NOT NULL,
    used_at       timestamptz,
    revoked_at    timestamptz,
    PRIMARY KEY (org_id, id),
    FOREIGN KEY (org_id, cluster_id) REFERENCES clusters ON DELETE CASCADE
);
CREATE INDEX IF NOT EXISTS onboarding_tokens_by_cluster ON onboarding_tokens (org_id, cluster_id, id DESC);

-- What an agent said last, and how far it follows. Written when something changed, not with each heartbeat.
CREATE TABLE IF NOT EXISTS cluster_status (
    org_id        uuid NOT NULL,
    cluster_id    uuid NOT NULL,
    software      text,
    problems      jsonb NOT NULL DEFAULT '[]',
    gateways      jsonb NOT NULL DEFAULT '[]',
    reported_at   timestamptz,
    -- the last generation that changed something for this cluster, and when a replica first published it
    published_generation  bigint NOT NULL DEFAULT 0,
    published_at          timestamptz,
    -- the last generation that the agent said it applied
    applied_generation    bigint NOT NULL DEFAULT 0,
    applied_at            timestamptz,
    refused               text,                -- why the agent refused a newer one
    -- when its last feed ended; while one is open, it is seen now
    last_seen_at          timestamptz,
    PRIMARY KEY (org_id, cluster_id),
    FOREIGN KEY (org_id, cluster_id) REFERENCES clusters ON DELETE CASCADE
);

-- Open feeds. A row of a replica that no longer says that it lives does not count.
CREATE TABLE IF NOT EXISTS feeds (
    org_id        uuid NOT NULL,
    cluster_id    uuid NOT NULL,
    id            uuid NOT NULL,
    replica_id    uuid NOT NULL REFERENCES replicas ON DELETE CASCADE,
    connected_at  timestamptz NOT NULL,
    PRIMARY KEY (org_id, cluster_id, id),
    FOREIGN KEY (org_id, cluster_id) REFERENCES clusters ON DELETE CASCADE
);
CREATE INDEX IF NOT EXISTS feeds_by_replica ON feeds (replica_id);
