-- Queries over the shop's tables (conftest.py), by what they are about. Those of `ordered` fix the
-- order of their rows.

-- # joins
select e.id, p.title from event e join page p on e.page = p.id where e.id < 500;
select e.id, p.title from event e left join page p on e.page = p.id where e.id < 500;
select p.id, count(e.id) from event e right join page p on e.page = p.id group by p.id;
select coalesce(e.page, p.id) k, count(*), count(p.id) from event e full join page p on e.page = p.id group by
k;
select p.id, v.id from page p cross join visitor v where p.id + v.id = 20;
select v.name from visitor v semi join event e on e.visitor = v.id and e.page = 7;
select v.name from visitor v anti join event e on e.visitor = v.id and e.mobile;
select name from visitor where id not in (select visitor from event where kind = 2);
select title from page where id not in (select page from event);
select count(*) from event where page in (select id from page where value > 5);
select a.id, b.id from visitor a join visitor b on a.invited_by = b.id;
select a.name, b.name, c.name from visitor a left join visitor b on a.invited_by = b.id left join visitor c on
b.invited_by = c.id;
select count(*) from event a join event b on a.day = b.day and a.id < b.id and a.page = 5;
select v.id, count(*) from visitor v join event e on e.id between v.id and v.id + 3 group by 1;
select count(*) from event e join page p on e.page is not distinct from p.id;
select count(*), sum(e.price) from event e join visitor v on e.visitor = v.id join page p on e.page = p.id
where v.country = 'de' and p.section = 2;
select * from page natural join (select id, name from visitor) v;
select id, title, name from page full join visitor using (id);
select count(*) from event e left join visitor v on e.visitor = v.id and v.country = 'fr' where v.id is null;
select v.name, (select count(*) from event e where e.visitor = v.id) n from visitor v;
select v.name, (select max(ts) from event e where e.visitor = v.id and mobile) from visitor v;
select name from visitor v where exists (select 1 from event e where e.visitor = v.id and e.price > 9.9);
select name from visitor v where not exists (select 1 from event e where e.visitor = v.id and e.page = 3) and
country is not null;
select count(*) from event where price > (select avg(price) from event);
select id from event e where price = (select max(price) from event x where x.page = e.page) and id < 3000;
select e.id from event e join nothing n on e.id = n.id;
select e.id, n.id from page e left join nothing n on e.id = n.id;
select count(*) from event e join visitor v on e.visitor = v.id where e.tag = v.country or e.kind = 1;
select count(*) from event e join page p on e.page::varchar = p.id::varchar;
select count(*) from event a join event b on a.score = b.score and a.id < 60 and b.id < 60;

-- # sets
select page from event union select id from page;
select page from event union all select id from page;
select page from event intersect select id from page;
select id from page except select page from event;
select kind, mobile from event except select 1, true;
(select id from visitor limit 3) union all (select 5);
select id, title from page union all select id, name from visitor union all select 0, null;
select page, count(*) from (select page from event union all select id from page) group by 1;
select day from event where id < 9 union select born from visitor where id < 3;
select score from event union select value from page;
select 1 a union select 2.5 union select null;
select distinct kind, mobile from event;
select count(*) from (select distinct visitor, page, kind, mobile from event);

-- # aggregates
select kind, count(*), count(page), sum(price), avg(price), min(tag), max(ts) from event group by kind;
select mobile, stddev(price), var_samp(score), stddev_pop(id), avg(weight) from event where not isnan(score)
group by mobile;
select count(distinct visitor), count(distinct tag), sum(distinct page) from event;
select kind, count(distinct visitor), approx_count_distinct(1) from event group by kind;
select page, median(price), quantile_cont(price, 0.9), quantile_disc(id, 0.5) from event group by page;
select kind, string_agg(page::varchar, ',' order by id) from event where id < 200 group by kind;
select visitor % 10 d, bool_and(mobile), bool_or(mobile), any_value(kind is null) is not null from event group
by d;
select kind, mobile, count(*), grouping(kind), grouping(mobile) from event group by rollup (kind, mobile);
select kind, mobile, page, sum(price) from event group by cube (kind, mobile, page);
select kind, day, count(*) from event group by grouping sets ((kind), (day), ());
select page, count(*) n from event group by page having count(*) > 430;
select count(*), sum(price), min(id), max(tag) from nothing;
select page, count(*) from nothing group by page;
select sum(big), avg(big), min(big), max(big) from event where id < 100;
select score, count(*) from event where id < 60 group by score;
select tag, count(*) from event group by tag;
select ts, count(*) from event group by ts having count(*) > 1;
select extract(year from day) y, extract(month from day) m, sum(price) from event group by all;
select sum(price) filter (where mobile), count(*) filter (where page > 5) from event;
select min(mobile), max(mobile), max(day), min(ts), max(weight), min(tag) from event;
select arg_max(id, price), arg_min(tag, id) from event where price is not null and id < 900;
select corr(id, price), covar_pop(id, price), regr_slope(price, id) from event;
select sum(id)/count(*), avg(id::double), sum(weight) from event;
select first(id order by id), last(id order by id) from event;
select product(1 + page / 1000.0) from event where id < 50;
select bit_and(id), bit_or(id), bit_xor(id) from event;
select kurtosis(price), skewness(price) from event;

-- # windows
select id, row_number() over (order by id) from event where id < 300;
select id, rank() over (partition by page order by price desc, id) from event;
select id, dense_rank() over (partition by kind order by day), percent_rank() over (partition by kind order by
day), cume_dist() over (partition by kind order by day) from event;
select id, ntile(4) over (partition by page order by id) from event;
select id, lag(price) over (partition by visitor order by id), lead(price, 2, 0) over (partition by visitor
order by id) from event;
select id, sum(price) over (partition by page order by id rows between 2 preceding and current row) from event;
select id, avg(price) over (partition by page order by id rows between 1 preceding and 1 following) from event
where page is not null;
select id, first_value(tag) over w, last_value(tag) over w, nth_value(tag, 2) over w from event window w as
(partition by kind order by id rows between unbounded preceding and unbounded following);
select page, count(*), rank() over (order by count(*) desc, page) from event group by page;
select * from (select id, page, row_number() over (partition by page order by price desc, id) r from event)
where r <= 2;
select id, price from event qualify row_number() over (partition by page order by price desc, id) = 1;
select id, price / sum(price) over (partition by page) part from event where page = 3;
select id, count(*) over () from visitor;
select id, sum(id) over (order by id) from visitor;
select id, max(price) over (partition by visitor, kind) from event;
select day, sum(sum(price)) over (order by day) from event group by day;

-- # expressions
select id, case kind when 0 then 'zero' when 1 then 'one' else 'many' end from event where id < 90;
select id, case when price > 5 then 'dear' when price is null then '?' end from event where id < 90;
select upper(tag), lower(tag), length(tag), trim(tag), substring(tag, 2, 3), reverse(tag) from event where id
< 120;
select replace(tag, 'a', 'o'), tag || '!', concat(tag, page), left(tag, 2), right(tag, 2), lpad(tag, 9, '*'),
position('g' in tag) from event where id < 120;
select count(*) from event where tag like 'tag1%' or tag like '%\_b\%%' escape '\';
select id from event where tag ilike 'ÜN%' and id < 100;
select count(*) from event where regexp_matches(tag, '^tag[0-9]$');
select id, coalesce(tag, page::varchar, 'none'), nullif(kind, 1), ifnull(page, -1), greatest(page, kind),
least(page, kind) from event where id < 120;
select abs(-id), sign(page - 5), ceil(score), floor(score), round(score, 1), sqrt(id), power(id, 2), ln(id +
1), exp(page / 10.0) from event where id < 120 and not isnan(score);
select id % 7, id // 7, id / 7, -id, id & 5, id | 8, xor(id, 3), id << 2 from event where id < 50;
select extract(year from ts), extract(month from ts), extract(day from ts), extract(hour from ts),
extract(minute from ts), extract(second from ts), extract(dow from ts), extract(doy from ts), extract(quarter
from day), extract(week from day) from event where id < 400;
select date_trunc('month', day), date_trunc('hour', ts), date_part('epoch', ts), dayname(day), monthname(day),
last_day(day) from event where id < 200;
select day + 3, day - 3, day + interval 1 month, day - date '1970-01-01', ts + interval 90 minute, ts -
interval 2 day from event where id < 200;
select date_diff('day', day, date '2000-01-01'), datediff('month', day, date '1999-01-15'), date_add(day,
interval 2 week) from event where id < 100;
select strftime(day, '%Y/%m/%d'), strftime(ts, '%H:%M:%S'), day::varchar, ts::varchar from event where id <
100;
select strptime('2020-02-29', '%Y-%m-%d') + interval (id) day from event where id < 10;
select make_date(1960 + id, 2, 3), year(day), month(day), day(day) from event where id < 30;
select id from event where day between date '1969-12-30' and date '1970-01-02';
select id from event where ts >= timestamp '1970-01-01 00:00:00' and ts < '1970-01-02';
select price + 1, price * 2.5, price / 3, price - big, round(price, 1), price::integer, price::double,
price::varchar from event where id < 60;
select big * 2, big + 1, big / 7 from event where id < 20;
select id::varchar, '42'::integer + id, tag::varchar, kind::boolean, mobile::integer, try_cast(tag as integer)
from event where id < 60;
select mobile and kind > 1, mobile or kind > 1, not mobile, mobile is true, mobile is not false, mobile =
(kind = 1) from event where id < 120;
select score, isnan(score), score = 0, score > 5, score is null from event where id < 60;
select page between 3 and 7, page in (1, 2, null), page not in (1, 2), page is distinct from 3 from event
where id < 60;
select weight, weight * 2, weight::double, weight + price from event where id < 60;
select md5('x'), 1 + 1, 'a' || 'b', date '2020-01-31' + interval 1 month, pi();
select chr(65 + page), ascii(tag), repeat('ab', kind), starts_with(tag, 'tag'), contains(tag, 'b'),
strlen(tag) from event where id < 90;
select if(mobile, 1, 2), hash(1) is not null from event where id < 9;
select time '10:11:12' < time '12:00:00';

-- # shapes
with busy as (select visitor, count(*) n from event group by visitor) select v.name, b.n from busy b join
visitor v on v.id = b.visitor where b.n > (select avg(n) from busy);
with a as (select page, sum(price) s from event group by page), b as (select * from a where s > 10), c as
(select * from a where s <= 2000) select b.page, c.s from b join c on b.page = c.page;
with e as (select * from event where kind = 1) select (select count(*) from e), (select max(id) from e),
(select count(distinct page) from e);
select * from (values (1, 'x'), (2, null)) v(a, b) join page on page.id = v.a;
select x.d, y.d from (select day d, count(*) n from event group by day) x join (select born d, count(*) n from
visitor group by born) y on x.n = y.n where x.d < date '1969-11-05';
select * exclude (big, score, weight) from event where id = 4321;
select * replace (upper(title) as title) from page;
select 1 as one, 'x' as x, null as nothing;
select count(*) from event;
select count(*) from event where false;
select id from event where id = -1;
select id as "Weird ""name""", price as "select" from event where id < 5;
from event select page, count(*) group by page;
select section, sum(n) from page join (select page, count(*) n from event group by page) e on e.page = page.id
group by section;
select * from event where id < 20;
select v.country, p.section, count(*), sum(e.price) from event e, visitor v, page p where e.visitor = v.id and
e.page = p.id group by rollup (v.country, p.section);

-- # ordered
select id, price from event order by price desc, id limit 10;
select id from event order by id desc limit 5 offset 20;
select id, tag from event order by tag nulls first, id limit 50;
select id, score from event where id < 80 order by score, id;
select page, kind, count(*) c from event group by page, kind order by c desc, page, kind;
select distinct page from event order by page desc nulls last;
select id from page union all select id from visitor order by 1, 1 limit 30;
select id, ts from event order by ts limit 3;
select title from page order by length(title), title;
select id, mobile from event order by mobile desc nulls first, id limit 400;
select id from event order by price * 2 - page desc nulls last, id limit 20;
select day, sum(price) s from event group by day order by s desc, day limit 7;
select case when not (page not in (0, 3)) then page end a, kind b, count(page) n from event group by rollup (case when not (page not in (0, 3)) then page end, kind) order by 1, 2, 3;
select not not (page in (1, 2)) a, not (tag in ('tag1', '')) b, count(*) n from event group by grouping sets ((not not (page in (1, 2))), (not (tag in ('tag1', '')), kind)) order by 1, 2, 3;
select count(*) n from event where not (page not in (1, null)) or not (kind is not null) or not not (page is null);
