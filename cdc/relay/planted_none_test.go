package relay_test

// Bugs that a build tag plants into the simulation, so that a test can show that it finds them.
const planted = unfencedSave || checkpointBeforeConfirm || wallClock
