-- What the destination signed: DSSE envelopes. Files that became durable there
-- together share one, so that several uploads may refer to it; it goes with the
-- last of them.
create table receipts (
	id       blob not null primary key, -- SHA-256 of the envelope
	envelope blob not null
) strict;

alter table uploads add column receipt blob references receipts (id);

create index uploads_by_receipt on uploads (receipt) where receipt is not null;
