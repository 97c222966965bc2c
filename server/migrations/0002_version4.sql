-- A client that the operator has shut out is revoked since then; null if it is
-- not.
alter table clients add column revoked_at integer;

-- transfer is what the sender called the delivery; null if it did not say, or if
-- another file of the client came by that name of its. mode are the permission
-- bits and mtime the time of the last change in nanoseconds since 1970 that the
-- sender stated; null if it did not.
alter table files add column transfer blob;
alter table files add column mode integer;
alter table files add column mtime integer;
create unique index files_transfer on files (client, transfer) where transfer is not null;

-- Join tokens are kept by their SHA-256 alone. client is the name of the only
-- client that it is good for; null for any. expires_at is null if it does not
-- expire. What is used up is deleted.
create table join_tokens (
	hash       blob    not null primary key,
	client     text,
	uses_left  integer not null,
	created_at integer not null,
	expires_at integer
) strict, without rowid;
