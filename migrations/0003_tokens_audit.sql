-- API tokens, by hash alone. Without an organization: the installation's owner.
CREATE TABLE IF NOT EXISTS api_tokens (
    id            uuid PRIMARY KEY,
    org_id        uuid REFERENCES organizations ON DELETE CASCADE,
    name          text NOT NULL,
    role          text NOT NULL CHECK (role IN ('owner', 'admin', 'editor', 'viewer')),
    hash          bytea NOT NULL CONSTRAINT api_tokens_hash_key UNIQUE CHECK (octet_length(hash) = 32),
    created_at    timestamptz NOT NULL,
    created_by    text NOT NULL,
    expires_at    timestamptz,
    revoked_at    timestamptz,
    last_used_at  timestamptz,
    CONSTRAINT api_tokens_owner_is_of_the_installation CHECK ((org_id IS NULL) = (role = 'owner'))
);
CREATE UNIQUE INDEX IF NOT EXISTS api_tokens_name_key
    ON api_tokens (org_id, name) NULLS NOT DISTINCT WHERE revoked_at IS NULL;

-- Who changed what. `before` and `after` are the thing as the API shows it (never a secret); `difference` is a list
-- of {path, before, after}. Events of the installation have no organization; those of an organization go with it.
CREATE TABLE IF NOT EXISTS audit_events (
    id            uuid PRIMARY KEY,            -- version 7: in the order of time
    org_id        uuid REFERENCES organizations ON DELETE CASCADE,
    at            timestamptz NOT NULL,
    actor_kind    text NOT NULL CHECK (actor_kind IN ('token', 'agent', 'system')),
    actor_id      text NOT NULL,
    actor_name    text NOT NULL,
    action        text NOT NULL,               -- as 'cluster.create'
    subject_kind  text NOT NULL,               -- as 'cluster'
    subject_name  text NOT NULL,
    subject_id    uuid,
    before        jsonb,
    after         jsonb,
    difference    jsonb NOT NULL,
    request_id    text,
    -- the organization's generation of the same transaction: in the order of commits, so that a reader can follow
    generation    bigint,
    CHECK ((org_id IS NULL) = (generation IS NULL))
);
CREATE INDEX IF NOT EXISTS audit_events_by_org ON audit_events (org_id, id DESC);
CREATE INDEX IF NOT EXISTS audit_events_by_generation ON audit_events (org_id, generation, id);

-- Answers of creations, kept for a day: the same key with the same request gets the same answer.
CREATE TABLE IF NOT EXISTS idempotency_keys (
    token_id      uuid NOT NULL REFERENCES api_tokens ON DELETE CASCADE,
    key           text NOT NULL CHECK (length(key) BETWEEN 1 AND 255),
    org_id        uuid REFERENCES organizations ON DELETE CASCADE,
    request_hash  bytea NOT NULL CHECK (octet_length(request_hash) = 32),
    -- the answer, sealed with a key made from the caller's own token, which is not in the database: an answer may hold a secret
    answer        bytea NOT NULL,
    created_at    timestamptz NOT NULL,
    PRIMARY KEY (token_id, key)
);
CREATE INDEX IF NOT EXISTS idempotency_keys_by_age ON idempotency_keys (created_at);
