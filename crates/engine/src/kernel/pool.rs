//! A thread pool for parallel regions of microseconds.
//!
//! A decoding step consists of about a hundred regions of 20 to 100 µs each. The calling thread works too. Helpers that
//! arrive late find the region closed and delay nobody. Tasks are handed out one by one, so that a slow thread does
//! fewer of them. A helper spins for a moment before it sleeps.
//!
//! If another process takes a helper's core in the middle of a task, the caller has to wait for the helper. The caller
//! therefore keeps a balance of the time that helpers save and cost. While they cost more, it works alone for a while.

use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Mutex, OnceLock, PoisonError, TryLockError};
use std::thread::{Thread, available_parallelism};
use std::time::{Duration, Instant};

/// Number of threads that a region may use; 0 means one per core.
static LIMIT: AtomicUsize = AtomicUsize::new(0);

/// Sets how many threads the kernels use from now on. The limit is one per core, which 0 stands for.
pub fn set(threads: usize) {
    LIMIT.store(threads, Relaxed);
}

/// How many threads the kernels use.
pub fn count() -> usize {
    let cores = 1 + pool().helpers.len();
    match LIMIT.load(Relaxed) {
        0 => cores,
        limit => limit.min(cores),
    }
}

/// Runs `task(0)` to `task(count - 1)`, each once and in any order, on the caller and the helpers.
///
/// # Panics
/// A task panics.
pub(crate) fn run(count: usize, task: &(dyn Fn(usize) + Sync)) {
    let helpers = if count > 1 { self::count() - 1 } else { 0 };
    if helpers == 0 {
        return (0..count).for_each(task);
    }
    match pool().leader.try_lock() {
        Ok(mut leader) => pool().lead(&mut leader, count, helpers, task),
        // A task panicked before. The pool is still in a valid state.
        Err(TryLockError::Poisoned(leader)) => {
            pool().lead(&mut leader.into_inner(), count, helpers, task)
        }
        // Another caller's region is running, so the cores are busy.
        Err(TryLockError::WouldBlock) => (0..count).for_each(task),
    }
}

/// Runs `work` on every item, on the caller and the helpers.
///
/// # Panics
/// `work` panics.
pub(crate) fn share<T: Send>(items: impl Iterator<Item = T> + Send, work: impl Fn(T) + Sync) {
    let items = Mutex::new(items);
    let next = || items.lock().unwrap_or_else(PoisonError::into_inner).next();
    run(count(), &|_| std::iter::from_fn(next).for_each(&work));
}

/// How long a helper spins before it sleeps.
const AWAKE: Duration = Duration::from_micros(100);
/// Seconds that the helpers may cost on balance before the caller works alone for a while.
const LOSS: f64 = 100e-6;
/// The share of the balance that is forgotten in each region.
const FORGET: f64 = 0.02;
/// How long the caller works alone: the first time, and at most.
const ALONE: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(160)];
/// After this many regions with helpers, the time alone is reset to the first value.
const CALM: u32 = 1000;

struct Pool {
    /// Held by the caller whose region is running.
    leader: Mutex<Leader>,
    /// The number of the region (from bit 16 up), whether it is open ([`OPEN`]), and the number of helpers inside
    /// (bits below).
    state: AtomicU64,
    /// The open region's tasks. The leader writes it while the region is closed and no helper is inside.
    job: UnsafeCell<Job>,
    /// How many tasks of each range were taken. Every thread begins with a range of its own.
    taken: Vec<AtomicUsize>,
    /// The maximum number of helpers inside.
    most: AtomicUsize,
    asleep: AtomicUsize,
    panicked: AtomicBool,
    helpers: Vec<Thread>,
}

const OPEN: u64 = 1 << 15;

#[derive(Clone, Copy)]
struct Job {
    task: *const (dyn Fn(usize) + Sync),
    count: usize,
    ranges: usize,
}

// SAFETY: `job` is only read by helpers that entered an open region. It is only written by the leader, of which the
// mutex allows one, while the region is closed and no helper is inside. All other fields are atomic or never change.
unsafe impl Sync for Pool {}
// SAFETY: the pointer in `job` is only dereferenced while the leader keeps its target alive.
unsafe impl Send for Pool {}

struct Leader {
    alone_until: Option<Instant>,
    /// How long the caller will work alone next time.
    alone: Duration,
    /// Seconds that the helpers have saved.
    balance: f64,
    /// Regions with helpers since the caller last worked alone.
    calm: u32,
}

fn pool() -> &'static Pool {
    static POOL: OnceLock<&'static Pool> = OnceLock::new();
    POOL.get_or_init(|| {
        let helpers = available_parallelism().map_or(1, usize::from) - 1;
        let (send, receive) = std::sync::mpsc::channel::<&'static Pool>();
        let receive = std::sync::Arc::new(Mutex::new(receive));
        let spawn = |i: usize| {
            let receive = receive.clone();
            let named = std::thread::Builder::new().name(format!("kernel-{i}"));
            let thread = named.spawn(move || {
                let pool = receive.lock().ok().and_then(|pools| pools.recv().ok());
                if let Some(pool) = pool {
                    pool.help();
                }
            });
            thread.ok().map(|handle| handle.thread().clone())
        };
        let pool: &'static Pool = Box::leak(Box::new(Pool {
            leader: Mutex::new(Leader { alone_until: None, alone: ALONE[0], balance: 0.0, calm: 0 }),
            state: AtomicU64::new(0),
            job: UnsafeCell::new(Job { task: &|_| (), count: 0, ranges: 1 }),
            taken: (0..=helpers).map(|_| AtomicUsize::new(0)).collect(),
            most: AtomicUsize::new(0),
            asleep: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            helpers: (0..helpers).map_while(spawn).collect(),
        }));
        pool.helpers.iter().for_each(|_| send.send(pool).unwrap_or_default());
        pool
    })
}

impl Pool {
    fn lead(&self, leader: &mut Leader, count: usize, helpers: usize, task: &(dyn Fn(usize) + Sync)) {
        let began = Instant::now();
        if leader.alone_until.is_some_and(|until| began < until) {
            return (0..count).for_each(task);
        }
        // SAFETY: this only erases the lifetime; the task is not used after `Closing` is dropped below.
        let task: *const (dyn Fn(usize) + Sync) = unsafe { std::mem::transmute(task) };
        let job = Job { task, count, ranges: helpers + 1 };
        // SAFETY: the last region is closed, all helpers have left it, and this one is not open yet.
        unsafe { *self.job.get() = job };
        self.taken.iter().for_each(|taken| taken.store(0, Relaxed));
        self.most.store(helpers, Relaxed);
        // It may still be set if the caller's own task panicked, too.
        self.panicked.store(false, Relaxed);
        let region = (self.state.load(Relaxed) >> 16) + 1;
        self.state.store(region << 16 | OPEN, SeqCst);
        if self.asleep.load(SeqCst) > 0 {
            self.helpers.iter().take(helpers).for_each(Thread::unpark);
        }
        let closing = Closing(self);
        // SAFETY: the caller's borrow is alive.
        let done = self.take_tasks(unsafe { &*task }, job, 0);
        let worked = Instant::now();
        drop(closing);
        if self.panicked.swap(false, Relaxed) {
            resume_unwind(Box::new("a task of the kernels panicked"));
        }
        let per_task = (worked - began).as_secs_f64() / f64::from(done.max(1));
        leader.note(
            per_task * count.saturating_sub(done as usize) as f64 - worked.elapsed().as_secs_f64(),
        );
    }

    /// Takes tasks until none is left, beginning with this thread's own range, because neighbouring tasks often lie
    /// side by side in memory. Returns the number of tasks done.
    fn take_tasks(
        &self,
        task: &(dyn Fn(usize) + Sync),
        Job { count, ranges, .. }: Job,
        own: usize,
    ) -> u32 {
        let mut done = 0;
        for range in (own..ranges).chain(0..own) {
            let (start, end) = (count * range / ranges, count * (range + 1) / ranges);
            loop {
                let next = start + self.taken[range].fetch_add(1, Relaxed);
                if next >= end {
                    break;
                }
                task(next);
                done += 1;
            }
        }
        done
    }

    /// The main loop of a helper.
    fn help(&self) {
        let mut last = 0;
        loop {
            let region = self.wait(last);
            last = region;
            let inside = self.state.fetch_update(AcqRel, Acquire, |state| {
                let room = (state & (OPEN - 1)) < self.most.load(Relaxed) as u64;
                (state >> 16 == region && state & OPEN != 0 && room).then_some(state + 1)
            });
            let Ok(before) = inside else { continue };
            let own = 1 + (before & (OPEN - 1)) as usize;
            // SAFETY: this thread is inside an open region, and the leader waits for it to leave before it writes the
            // next job.
            let job = unsafe { *self.job.get() };
            // SAFETY: the leader keeps the task alive until this thread has left the region.
            let task = unsafe { &*job.task };
            if catch_unwind(AssertUnwindSafe(|| self.take_tasks(task, job, own))).is_err() {
                self.panicked.store(true, Relaxed);
            }
            self.state.fetch_sub(1, Release);
        }
    }

    /// Waits for a region other than the last one seen, and returns its number.
    fn wait(&self, last: u64) -> u64 {
        let fresh = || Some(self.state.load(SeqCst) >> 16).filter(|region| *region != last);
        let began = Instant::now();
        while began.elapsed() < AWAKE {
            for _ in 0..32 {
                if let Some(region) = fresh() {
                    return region;
                }
                std::hint::spin_loop();
            }
        }
        self.asleep.fetch_add(1, SeqCst);
        let region = loop {
            if let Some(region) = fresh() {
                break region;
            }
            std::thread::park();
        };
        self.asleep.fetch_sub(1, SeqCst);
        region
    }
}

/// Closes the region when it is dropped, also if the caller's own task panics, and waits until the helpers have left.
struct Closing<'a>(&'a Pool);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.state.fetch_and(!OPEN, AcqRel);
        let mut rounds = 0u32;
        while self.0.state.load(Acquire) & (OPEN - 1) != 0 {
            rounds += 1;
            // A helper that was preempted may be waiting for this core.
            if rounds < 1000 { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
    }
}

impl Leader {
    /// Records the seconds that the helpers saved in a region: the time that their tasks would have taken the caller,
    /// minus the time that the caller waited for them.
    fn note(&mut self, saved: f64) {
        self.balance = (1.0 - FORGET) * self.balance + saved;
        self.calm = self.calm.saturating_add(1);
        if self.balance < -LOSS {
            self.alone_until = Some(Instant::now() + self.alone);
            self.alone = (2 * self.alone).min(ALONE[1]);
            (self.balance, self.calm) = (0.0, 0);
        } else if self.calm == CALM {
            self.alone = ALONE[0];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUNDS: usize = if cfg!(miri) { 2 } else { 50 };

    #[test]
    fn every_task_runs_once() {
        for count in [0, 1, 2, 3, 100, 1000] {
            let runs: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
            for round in 1..=ROUNDS {
                run(count, &|i| {
                    runs[i].fetch_add(1, Relaxed);
                });
                assert!(runs.iter().all(|n| n.load(Relaxed) == round));
            }
        }
    }

    #[test]
    fn callers_do_not_meet() {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10 * ROUNDS {
                        let sum = AtomicUsize::new(0);
                        run(20, &|i| {
                            sum.fetch_add(i, Relaxed);
                        });
                        assert_eq!(sum.load(Relaxed), 190);
                    }
                });
            }
        });
    }

    #[test]
    fn a_panic_reaches_the_caller_and_leaves_the_pool_whole() {
        for _ in 0..20 {
            let outcome = catch_unwind(|| run(50, &|i| assert!(i != 31)));
            assert!(outcome.is_err());
            every_task_runs_once();
        }
        // On caller and helpers alike.
        let slowly = |_: usize| {
            std::thread::sleep(Duration::from_micros(300));
            panic!("as it should");
        };
        for _ in 0..20 {
            assert!(catch_unwind(|| run(50, &slowly)).is_err());
            run(50, &|_| ());
        }
    }
}
