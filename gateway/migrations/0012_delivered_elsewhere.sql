-- An upload has a destination's URL once it is delivered there, and not before: what comes in
-- need not be written to its index.
drop index uploads_by_destination;
create index uploads_by_destination on uploads (destination, id) where destination is not null;
