-- What comes in is written to one index less: lists by state or by destination walk this one,
-- a part of it for each of both.
drop index uploads_by_state;
drop index uploads_by_lane;

-- For "state in (...)" SQLite makes a table in memory for each statement that inserts, for the
-- chain it does not; most rows end at its first condition. A foreign key that is looked at by the
-- commit needs no copies of the pages that a statement writes to. These say of the rows that are
-- there what was said before, so that only the text of the definition changes, and no row is
-- written: https://www.sqlite.org/lang_altertable.html, section 7.
pragma writable_schema = on;
update sqlite_schema set sql = replace(replace(replace(sql,
	'check (state in (''queued'', ''delivering'', ''waiting'', ''delivered'', ''failed'', ''cancelled''))',
	'check (state = ''queued'' or state = ''delivering'' or state = ''waiting'' or state = ''delivered'' or state = ''failed'' or state = ''cancelled'')'),
	'check (body in (''row'', ''file'', ''gone''))',
	'check (body = ''row'' or body = ''file'' or body = ''gone'')'),
	'references receipts (id)',
	'references receipts (id) deferrable initially deferred')
	where type = 'table' and name = 'uploads';
pragma writable_schema = reset; -- this connection reads the definition again

-- This also tells other connections that the schema is another one.
create index uploads_by_lane on uploads (lane, state, id);
