-- A table that was not analyzed yet had all of the user's tasks read for each task that got a parent.
CREATE OR REPLACE FUNCTION "check_parent"() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  broken text;
BEGIN
  -- By the ids alone: before the table is analyzed, an index of live tasks would look best, and all of the user's be read.
  EXECUTE format('
    SELECT CASE
      WHEN bool_or(deleted_at IS NULL) IS NOT TRUE THEN ''tasks_parent_found''
      WHEN bool_or(parent_id IS NOT NULL) OR
        (SELECT bool_or(deleted_at IS NULL) FROM %1$s WHERE user_id = $3 AND parent_id = $1) THEN ''tasks_parent_nested''
      WHEN (SELECT count(*) FILTER (WHERE deleted_at IS NULL) FROM %1$s WHERE user_id = $3 AND parent_id = $2) > 200
        THEN ''tasks_children_count''
    END
    FROM %1$s WHERE user_id = $3 AND id = $2',
    TG_RELID::regclass) INTO broken USING NEW.id, NEW.parent_id, NEW.user_id;
  IF broken IS NOT NULL THEN
    RAISE EXCEPTION 'task % breaks constraint "%"', NEW.id, broken
      USING ERRCODE = 'check_violation', CONSTRAINT = broken;
  END IF;
  RETURN NULL;
END
$$;
