CREATE TABLE IF NOT EXISTS global_namespaces (
    org_id        uuid NOT NULL REFERENCES organizations ON DELETE CASCADE,
    id            uuid NOT NULL,               -- version 7: the older sorts first
    name          text NOT NULL,
    domain        text NOT NULL,
    rules         jsonb NOT NULL,              -- a list of mapping rules
    version       bigint NOT NULL DEFAULT 1,   -- the ETag
    created_at    timestamptz NOT NULL,
    updated_at    timestamptz NOT NULL,
    PRIMARY KEY (org_id, id),
    CONSTRAINT global_namespaces_name_key UNIQUE (org_id, name),
    CONSTRAINT global_namespaces_domain_key UNIQUE (org_id, domain)
);

-- What clusters report. A row each, so that a change of one costs one.
CREATE TABLE IF NOT EXISTS inventory_namespaces (
    org_id        uuid NOT NULL,
    cluster_id    uuid NOT NULL,
    name          text NOT NULL,
    record        jsonb NOT NULL,
    PRIMARY KEY (org_id, cluster_id, name),
    FOREIGN KEY (org_id, cluster_id) REFERENCES clusters ON DELETE CASCADE
);
CREATE TABLE IF NOT EXISTS inventory_services (
    org_id        uuid NOT NULL,
    cluster_id    uuid NOT NULL,
    key           text NOT NULL,               -- namespace/name
    record        jsonb NOT NULL,
    PRIMARY KEY (org_id, cluster_id, key),
    FOREIGN KEY (org_id, cluster_id) REFERENCES clusters ON DELETE CASCADE
);

-- A virtual IP is for life: the index in the pools stays with the name for ever. `released_at` marks the tombstone of
-- a name that is no more; the same name back takes the same index, another name never does.
CREATE TABLE IF NOT EXISTS virtual_ips (
    org_id        uuid NOT NULL REFERENCES organizations ON DELETE CASCADE,
    name          text NOT NULL,
    index         bigint NOT NULL CHECK (index > 0),
    allocated_at  timestamptz NOT NULL,
    released_at   timestamptz,
    PRIMARY KEY (org_id, name),
    CONSTRAINT virtual_ips_index_key UNIQUE (org_id, index)
);
