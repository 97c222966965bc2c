-- Who may talk to the gateway. As long as there has never been a token, whoever
-- reaches it may; so rows stay when they are revoked.
create table tokens (
	hash       blob    not null primary key, -- SHA-256 of the token
	name       text    not null,
	scopes     text    not null,             -- of upload, read and admin, with commas between them
	max_size   integer,                      -- bytes of a file; null without a limit of its own
	created_at integer not null,
	expires_at integer,
	revoked_at integer
) strict, without rowid;

create unique index tokens_of_name on tokens (name) where revoked_at is null;

-- The name of the token that an upload was sent with; null if it was none.
alter table uploads add column token text;

create index uploads_by_token on uploads (token, id) where token is not null;
