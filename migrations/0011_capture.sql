-- The capture mode that a global namespace chooses for its namespaces; none where it has no say in that.
ALTER TABLE global_namespaces ADD COLUMN IF NOT EXISTS capture text;
