// SPDX-License-Identifier: GPL-2.0

//! `/dev/cachefiles`: what a daemon can do with it.
//!
//! Opening the device starts the configuration of a cache; commands configure it, `bind` brings it
//! into service, and closing the device takes it out again. Several daemons may have it open, each
//! for a cache with a directory and a tag of its own. `bind`, the commands that configure the
//! cache, the close of the device and, in classic mode, `read()` take a mutex; `copen`, `restore`,
//! `cull`, `inuse` and `debug` do not.

use crate::{
    cache::{
        config::{
            Argument,
            Config, //
        },
        Cache, //
    },
    classic::{
        read_state,
        Classic, //
    },
    debug,
    kernel_next::{
        compat::EOPNOTSUPP,
        cred::{
            capable,
            Capability, //
        },
        miscdevice::{
            MiscDevice,
            MiscDeviceRegistration, //
        },
        security::SecurityId,
        sync::poll::PollEvents, //
    },
    namei::cull,
    ondemand::{
        Ondemand,
        Requests, //
    },
    protocol::command::{
        self,
        BindMode,
        Command,
        Limit, //
    },
    service::Service, //
};
use kernel::{
    fs::file::{
        flags,
        File, //
    },
    new_mutex,
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        atomic::{
            ordering::{
                Acquire,
                Relaxed,
                Release, //
            },
            Atomic, //
        },
        poll::{
            PollCondVar,
            PollTable, //
        },
        Arc,
        Mutex,
        SetOnce, //
    },
    uaccess::{
        UserSliceReader,
        UserSliceWriter, //
    }, //
};

/// How many open files of the device are being closed, that is, have a cache that may still be on
/// its way out of service.
static CLOSING: Atomic<i32> = Atomic::new(0);

/// The configuration by the commands before `bind`, and the service that `bind` starts.
#[derive(Default)]
struct State {
    config: Config,
    /// The cache in service.
    service: Option<AnyService>,
}

/// A cache in service, in one of the modes.
enum AnyService {
    Classic(Service<Classic>),
    Ondemand(Service<Ondemand>),
}

impl AnyService {
    fn cache(&self) -> AnyCache {
        match self {
            AnyService::Classic(service) => AnyCache::Classic(service.cache().clone()),
            AnyService::Ondemand(service) => AnyCache::Ondemand(service.cache().clone()),
        }
    }

    fn withdraw(self) {
        match self {
            AnyService::Classic(service) => service.withdraw(),
            AnyService::Ondemand(service) => service.withdraw(),
        }
    }
}

/// A cache, in one of the modes.
enum AnyCache {
    Classic(Arc<Cache<Classic>>),
    Ondemand(Arc<Cache<Ondemand>>),
}

impl AnyCache {
    fn is_dead(&self) -> bool {
        match self {
            AnyCache::Classic(cache) => cache.mode().is_dead(),
            AnyCache::Ondemand(cache) => cache.mode().requests().is_dead(),
        }
    }

    fn cull(&self, name: &[u8]) -> Result {
        match self {
            AnyCache::Classic(cache) => cull::cull(cache, name),
            AnyCache::Ondemand(cache) => cull::cull(cache, name),
        }
    }

    fn check_in_use(&self, name: &[u8]) -> Result {
        match self {
            AnyCache::Classic(cache) => cull::check_in_use(cache, name),
            AnyCache::Ondemand(cache) => cull::check_in_use(cache, name),
        }
    }
}

/// An open device file.
#[pin_data]
pub(crate) struct DeviceFile {
    #[pin]
    state: Mutex<State>,
    /// The cache, once it is bound. Here as well, so that `read()`, `poll()` and the commands of a
    /// bound cache need no lock to find it.
    cache: SetOnce<AnyCache>,
    poll: Arc<PollCondVar>,
}

impl DeviceFile {
    fn requests(&self) -> Result<&Requests> {
        match self.cache.as_ref() {
            Some(AnyCache::Ondemand(cache)) => Ok(cache.mode().requests()),
            _ => Err(EOPNOTSUPP),
        }
    }

    fn is_dead(&self) -> bool {
        self.cache.as_ref().is_some_and(AnyCache::is_dead)
    }

    fn execute(&self, command: Command<'_>) -> Result {
        match command {
            Command::Bind(args) => self.bind(args),
            Command::Limit(limit, args) => self.set_limit(limit, args),
            Command::Dir(args) => self.set_dir(args),
            Command::Tag(args) => self.set_tag(args),
            Command::Secctx(args) => self.set_secctx(args),
            Command::Debug(args) => Self::set_debug(args),
            Command::Cull(name) => self.cache_for("cull", name)?.cull(name),
            Command::Inuse(name) => self.cache_for("inuse", name)?.check_in_use(name),
            Command::Copen(args) => self.requests()?.copen(args),
            Command::Restore => self.restore(),
        }
    }

    /// `brun`, `bcull`, `bstop`, `frun`, `fcull`, `fstop`: when to cull, and when to stop.
    fn set_limit(&self, limit: Limit, args: &[u8]) -> Result {
        let percent = command::parse_percent(args)?;
        let set = self.state.lock().config.limits.set(limit, percent);
        set.inspect_err(|_| {
            cf_err!("Free space limits must be in range 0%<=stop<cull<run<100%\n")
        })?;
        Ok(())
    }

    /// `dir`: the directory to keep the cache in.
    fn set_dir(&self, args: &[u8]) -> Result {
        if args.is_empty() {
            cf_err!("Empty directory specified\n");
            return Err(EINVAL);
        }
        let dir = Argument::new(args)?;
        let mut state = self.state.lock();
        if state.config.dir.is_some() {
            cf_err!("Second cache directory specified\n");
            return Err(EEXIST);
        }
        state.config.dir = Some(dir);
        Ok(())
    }

    /// `tag`: the name of the cache.
    fn set_tag(&self, args: &[u8]) -> Result {
        if args.is_empty() {
            cf_err!("Empty tag specified\n");
            return Err(EINVAL);
        }
        let tag = Argument::new(args)?;
        let mut state = self.state.lock();
        // A bound cache has one in any case.
        if state.config.tag.is_some() || state.service.is_some() {
            return Err(EEXIST);
        }
        state.config.tag = Some(tag);
        Ok(())
    }

    /// `secctx`: the security context to work in.
    fn set_secctx(&self, args: &[u8]) -> Result {
        let mut state = self.state.lock();
        if args.is_empty() {
            cf_err!("Empty security context specified\n");
            return Err(EINVAL);
        }
        if state.config.secid.is_some() {
            cf_err!("Second security context specified\n");
            return Err(EINVAL);
        }
        let context = Argument::new(args)?;
        let secid = SecurityId::from_context(context.as_c_str()?)?;
        state.config.secid = Some(secid);
        Ok(())
    }

    /// `debug`: what to log, for all caches.
    fn set_debug(args: &[u8]) -> Result {
        let mask =
            command::parse_mask(args).inspect_err(|_| cf_err!("debug command requires mask\n"))?;
        debug::set_mask(mask);
        Ok(())
    }

    /// The cache, for `command`, which is about `name` in the working directory.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the name is a path, `EIO` if the cache is not bound.
    fn cache_for(&self, command: &str, name: &[u8]) -> Result<&AnyCache> {
        if name.contains(&b'/') {
            cf_err!("{} command requires dirfd and filename\n", command);
            return Err(EINVAL);
        }
        self.cache.as_ref().ok_or_else(|| {
            cf_err!("{} applied to unready cache\n", command);
            EIO
        })
    }

    /// `restore`: a new daemon has taken over.
    fn restore(&self) -> Result {
        self.requests()?.restore();
        Ok(())
    }

    /// `bind`: brings the cache into service.
    fn bind(&self, args: &[u8]) -> Result {
        let mut state = self.state.lock();
        state.config.limits.check()?;
        if state.config.dir.is_none() {
            cf_err!("No cache directory specified\n");
            return Err(EINVAL);
        }
        if state.service.is_some() {
            cf_err!("Cache already bound\n");
            return Err(EBUSY);
        }
        let mode = BindMode::parse(args)
            .inspect_err(|_| cf_err!("Invalid argument to the 'bind' command\n"))?;
        let service = self
            .start(&state.config, mode)
            .inspect_err(|e| cf_err!("Failed to register: {}\n", e.to_errno()))?;
        // Not populated before: the lock is held, and there was no service.
        self.cache.populate(service.cache());
        state.service = Some(service);
        // A lookup may have come in while poll() could not yet see the cache.
        self.poll.notify_all();
        Ok(())
    }

    fn start(&self, config: &Config, mode: BindMode) -> Result<AnyService> {
        let poll = || self.poll.clone();
        Ok(match mode {
            BindMode::Classic => {
                AnyService::Classic(Service::bind(config, Classic::new(poll())?, poll())?)
            }
            BindMode::Ondemand(options) => {
                let mode = Ondemand::new(options, poll())?;
                AnyService::Ondemand(Service::bind(config, mode, poll())?)
            }
        })
    }
}

#[vtable]
impl MiscDevice for DeviceFile {
    type Ptr = Pin<KBox<Self>>;
    type OwnerModule = crate::LocalModule;

    /// As in C: seeking succeeds, though the device has no position.
    const NOOP_LLSEEK: bool = true;

    fn open(_file: &File, _misc: &MiscDeviceRegistration<Self>) -> Result<Self::Ptr> {
        if !capable(Capability::SYS_ADMIN) {
            return Err(EPERM);
        }
        // The directory and the tag may still be in use: the successor's `bind` would fail.
        if CLOSING.load(Acquire) != 0 {
            return Err(EBUSY);
        }
        let poll = Arc::pin_init(
            PollCondVar::new(c"cachefiles", kernel::static_lock_class!()),
            GFP_KERNEL,
        )?;
        KBox::pin_init(
            pin_init!(Self {
                state <- new_mutex!(State::default()),
                cache: SetOnce::new(),
                poll,
            }),
            GFP_KERNEL,
        )
    }

    /// Takes the cache out of service, in the context of the task that closed the device. Waits for
    /// disk I/O, but for no daemon: tasks that wait for one fail with `EIO`.
    fn release(this: Self::Ptr, _file: &File) {
        let service = this.state.lock().service.take();
        if let Some(service) = service {
            CLOSING.add(1, Relaxed);
            service.withdraw();
            CLOSING.fetch_sub(1, Release);
        }
    }

    fn read(this: Pin<&Self>, file: &File, buf: UserSliceWriter) -> Result<usize> {
        let may_wait = file.flags() & flags::O_NONBLOCK == 0;
        match this.cache.as_ref() {
            Some(AnyCache::Classic(cache)) => {
                // One `read()` at a time, so that no two report the same counts.
                let _state = this.state.lock();
                read_state(cache, buf)
            }
            Some(AnyCache::Ondemand(cache)) => cache.mode().requests().read_messages(buf, may_wait),
            None => Ok(0),
        }
    }

    fn write(this: Pin<&Self>, buf: UserSliceReader) -> Result<usize> {
        let len = buf.len();
        if this.is_dead() {
            return Err(EIO);
        }
        if len > PAGE_SIZE - 1 {
            return Err(EOPNOTSUPP);
        }
        let mut line = KVec::new();
        buf.read_all(&mut line, GFP_KERNEL)?;
        this.execute(Command::parse(&line)?)?;
        Ok(len)
    }

    fn poll(this: Pin<&Self>, file: &File, table: PollTable<'_>) -> PollEvents {
        table.register_wait(file, &this.poll);
        let (mut events, space) = match this.cache.as_ref() {
            None => return PollEvents::default(),
            Some(AnyCache::Ondemand(cache)) => (cache.mode().requests().poll(), cache.space()),
            Some(AnyCache::Classic(cache)) => {
                let has_news = cache.mode().has_news(cache.space());
                let events = if has_news {
                    PollEvents::IN
                } else {
                    PollEvents::default()
                };
                (events, cache.space())
            }
        };
        if space.is_culling() {
            events |= PollEvents::OUT;
        }
        events
    }
}
