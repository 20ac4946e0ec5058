-- The wall between tenants.
CREATE TABLE IF NOT EXISTS organizations (
    id              uuid PRIMARY KEY,
    name            text NOT NULL CONSTRAINT organizations_name_key UNIQUE,
    trust_domain    text NOT NULL CONSTRAINT organizations_trust_domain_key UNIQUE,
    -- rises in every transaction that changes what the compiler reads; its row lock puts those in order
    generation      bigint NOT NULL DEFAULT 1 CHECK (generation > 0),
    -- the next virtual IP that no name ever had
    next_vip_index  bigint NOT NULL DEFAULT 1 CHECK (next_vip_index > 0),
    created_at      timestamptz NOT NULL,
    version         bigint NOT NULL DEFAULT 1
);

-- Root certificates; two while a root rotates. The key is sealed with the key file, the organization's id as
-- associated data, so that a sealed key is worth nothing in another row.
CREATE TABLE IF NOT EXISTS trust_roots (
    org_id        uuid NOT NULL REFERENCES organizations ON DELETE CASCADE,
    id            uuid NOT NULL,
    certificate   text NOT NULL,               -- PEM
    key_sealed    bytea NOT NULL,
    signing       boolean NOT NULL,            -- whether new intermediates are signed by it
    not_before    timestamptz NOT NULL,
    not_after     timestamptz NOT NULL,
    created_at    timestamptz NOT NULL,
    PRIMARY KEY (org_id, id)
);
CREATE UNIQUE INDEX IF NOT EXISTS trust_roots_signing_key ON trust_roots (org_id) WHERE signing;

-- What changed with each generation, for readers that follow: (kind, reference) names rows to read again.
-- Old lines are pruned; a reader that finds a gap reads everything.
CREATE TABLE IF NOT EXISTS changes (
    org_id        uuid NOT NULL REFERENCES organizations ON DELETE CASCADE,
    generation    bigint NOT NULL,
    ordinal       integer NOT NULL,
    kind          text NOT NULL,
    reference     text NOT NULL,
    PRIMARY KEY (org_id, generation, ordinal)
);
