-- A topic that is made anew has records at places where those of the old one were parked.
ALTER TABLE parked DROP CONSTRAINT parked_topic_partition_no_record_offset_key;
ALTER TABLE parked ADD UNIQUE (topic, partition_no, record_offset, event_id);
