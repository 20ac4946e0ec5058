-- What belongs to the installation as a whole, one row: the address pools (fixed at the first start, because a
-- virtual IP is for life) and the authority that signs the controller's own HTTPS certificates.
CREATE TABLE IF NOT EXISTS installation (
    singleton     boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    id            uuid NOT NULL,
    vip_pool      text NOT NULL,
    vip6_pool     text NOT NULL,
    tls_ca        text NOT NULL,               -- PEM
    tls_ca_key    bytea NOT NULL,              -- sealed: nonce, ciphertext, tag
    created_at    timestamptz NOT NULL
);

-- A controller process. It says that it lives by one write every few seconds, however many agents it serves.
CREATE TABLE IF NOT EXISTS replicas (
    id            uuid PRIMARY KEY,
    started_at    timestamptz NOT NULL,
    seen_at       timestamptz NOT NULL
);
